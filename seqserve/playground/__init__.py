"""The playground: web pages on the user's machine that call a server; needs `seqserve[playground]`."""
