"""The scenarios by name."""
import importlib.util
def named(name):
    spec=importlib.util.spec_from_file_location('exp',name); m=importlib.util.module_from_spec(spec); spec.loader.exec_module(m); return m
