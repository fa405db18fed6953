"""Fuzzers: whatever bytes reach a decoder, it takes them or refuses them as it declares, in bounded time and memory.

target.py holds the property, mutation.py makes inputs out of valid ones, one file a room says which decoders there are;
corpus/DECODER/ keeps valid examples (`valid-*`) and every input that once broke something. `python -m tests.fuzz 600`
looks for more.
"""
