"""Reads tables of people's files, for the command and for training.

`files` finds out what a file is, `lines` decodes it, `rows` cuts it into rows and columns, `numbers` and
`dates` read cells, `order` finds the column of dates and checks its order, and `observations` reads a series
for the command. Nothing here knows a server, a terminal or a model. What cannot be understood is refused with
its line and column: no part guesses, and no check is left out because its input was not understood.
"""
