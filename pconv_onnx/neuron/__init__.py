"""The mathematics: quantisers, and the parallel and serial spiking neurons compiled from them.

NumPy only. Everything that runs elsewhere (kernel, function body) is tested against this room.
"""
