"""``python -m aapo_desk`` is ``aapo-desk``."""

from aapo_desk.cli import main

if __name__ == "__main__":
    main()
