"""A whole LVS cluster on one machine, on a real kernel. It imports the product; the product never imports it."""
