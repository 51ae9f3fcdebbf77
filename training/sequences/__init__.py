"""Networks of any recurrent layers as versions of contract 2: modules, graphs, comparison, export."""
