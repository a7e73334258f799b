"""Video with Wan: jobs, their queue on disk, the worker process that makes them, the files."""
