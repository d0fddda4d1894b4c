"""Launching of grids of runs: reading and checking a grid, running it here or by Slurm, and telling how it stands.

A *member* is one run of a grid. `grid` reads the file, `checking` refuses a grid that cannot run, `member_process`
starts a member and keeps a record of it, `local` and `slurm` are the launchers, `slurm_task` is a member on its node,
`status` tells how members stand.
"""
