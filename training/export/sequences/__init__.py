"""Writes networks of any recurrent layers as versions of contract 2: graphs, comparison, export."""
