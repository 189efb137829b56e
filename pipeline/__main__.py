"""`python -m pipeline` is `decant`."""

from decant.pipeline.cli.main import main

if __name__ == "__main__":
    main()
