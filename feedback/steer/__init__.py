"""Brings packets for addresses that this host does not have to IPVS by a firewall mark, on a director in either role.

It consists of three things: rules that mark (nftables or iptables), a policy rule for each mark, and a table in which
every address is local. `plan` is pure and says what is wanted and what must be done. `nftables` and `iptables` are the
two ways to mark, `routing` has the rules and routes by rtnetlink, and `keeper` maintains all of it. Knows no role, no
load and no address of the pair: only the next hop moves at a takeover.

Invariant: anything without our names or our number is not ours, and is never changed.
"""
