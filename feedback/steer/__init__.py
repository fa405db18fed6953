"""Brings packets for addresses that are not this host's to IPVS by a firewall mark, on a director in either role.

Three things make it: rules that mark (nftables or iptables), a policy rule for each mark, and a table in which every
address is local. `plan` says what is wanted and what is to be done, pure; `nftables` and `iptables` are the two ways to
mark, `routing` the rules and routes by rtnetlink, `keeper` holds it all in place. Knows no role, no load and no address
of the pair: only the next hop moves at a takeover. Invariant: what bears neither our names nor our number is not ours,
and is never changed.
"""
