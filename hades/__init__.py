"""Behaviour distillation in JAX: a few synthetic state-action pairs that train a policy of any architecture.

What is public stands in `__init__.pyi`. A name is loaded when it is first asked for, and JAX with the first that needs
it: what looks at a file or at settings does not wait for all of the library.
"""

import lazy_loader

from hades._foreign_envs import warn_of_foreign_envs

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

warn_of_foreign_envs()
