"""`python -m swaa_convert`."""

from swaa_convert.cli import main

if __name__ == "__main__":
    main()
