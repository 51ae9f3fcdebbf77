"""What the speed promises rest on, runnable by anyone: `make bench`. How to read it: README.md in this
folder.
"""
