"""The SQL store: the only importer of SQLAlchemy; speaks domain values to everybody else."""
