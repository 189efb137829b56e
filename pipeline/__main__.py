"""`python -m pipeline` is `decant`."""

from pipeline.cli import main

if __name__ == "__main__":
    main()
