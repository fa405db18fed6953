"""Programs that own the service while our master adjusts it: keepalived and ldirectord, the real ones."""
