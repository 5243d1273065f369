"""The target `bundle`, and the programs that it writes into each."""
