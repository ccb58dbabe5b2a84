"""`python -m app`: the same program as the console script `grantserver`."""

from app.cli import main

if __name__ == "__main__":
    main()
