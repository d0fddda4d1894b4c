"""JAX's persistent compilation cache, whose folder commands and notebooks share."""

from __future__ import annotations

import os
from pathlib import Path

_DIRECTORY, _MIN_SECONDS = "JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"


def configure_environment() -> None:
    """Sets the environment variables of the cache that are not set; for a process that has not imported JAX yet.

    Raises:
        RuntimeError: The home directory, where the cache would be, is not known.
    """
    os.environ.setdefault(_MIN_SECONDS, "0")
    if _DIRECTORY not in os.environ:
        os.environ[_DIRECTORY] = str(_default_folder())


def enable_compilation_cache(folder: str | os.PathLike[str] | None = None) -> str:
    """Keeps compiled programs on disk, so that a restarted notebook or program does not compile them again.

    The `hades` command does so by itself. Programs that were compiled before the call are not kept.

    Args:
        folder: Where they are kept. None: the folder that JAX has been given, by `JAX_COMPILATION_CACHE_DIR` or its
            configuration, otherwise that of the command, `hades/jax` in `XDG_CACHE_HOME` or `~/.cache`.

    Returns:
        The folder, or the address of one.

    Raises:
        RuntimeError: No folder is given, and the home directory is not known.

    Example:
        >>> enable_compilation_cache()  # doctest: +SKIP
        '/home/me/.cache/hades/jax'
    """
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    configured = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    kept = os.fspath(folder or configured or _default_folder())
    jax.config.update("jax_compilation_cache_dir", kept)
    if _MIN_SECONDS not in os.environ:
        # Most programs of a run compile in less than JAX's threshold of a second.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    # A process that has compiled would not look for the folder again.
    compilation_cache.reset_cache()
    return kept


def use_compilation_cache(enabled: bool) -> None:
    """Turns the persistent cache on or off for the programs that are compiled from now on."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    jax.config.update("jax_enable_compilation_cache", enabled)
    # JAX asks the configuration once, at the first program of a process, unless its answer is forgotten.
    compilation_cache.reset_cache()


def _default_folder() -> Path:
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches, "hades", "jax")
