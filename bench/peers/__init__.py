"""Other servers under the same load as Conveyor: ``python -m bench.peers``, in an environment of their own."""
