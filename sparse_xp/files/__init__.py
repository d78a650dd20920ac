"""Read and write files: atomically, and never over what sparse_xp did not write.

Every writer goes through ``writing`` (one file) or ``directories`` (a whole directory). Before a writer replaces
something, ``ownership`` decides whether it may: a directory of ours has a marker and ``checksums``, a file of ours is
``signed``. ``locks`` keeps processes apart. Every reader goes through ``reading``, which turns damage into a message
that names the file; ``untrusted_json`` and ``model_directory`` read what anybody may have written.
"""
