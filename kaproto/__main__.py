"""
C{python -m kaproto} is the C{kaproto} command.
"""

from kaproto.cli.main import main

if __name__ == "__main__":
    main()
