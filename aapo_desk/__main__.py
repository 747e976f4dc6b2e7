"""Entry point of ``python -m aapo_desk``, the same as ``aapo-desk``."""

from aapo_desk.cli import main

if __name__ == "__main__":
    main()
