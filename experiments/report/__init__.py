"""Pages and films of runs: `hades report` and `hades render`.

A `Subject` is read, its policies are trained and play (`playing`), pairs are removed one at a time (`removal`), the
environment is drawn (`scenes`) as a `Film` of primitives, and all of it becomes JSON (`content`) in a page (`page`) or
a GIF (`gif`).
"""
