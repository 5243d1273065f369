"""The mathematics: quantisers, and the parallel and serial spiking neurons compiled from them.

NumPy only. Everything that runs elsewhere (kernels, function bodies) is tested against this package.
"""
