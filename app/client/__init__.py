"""A client of the admin API: one method for each operation, errors as this program knows them."""
