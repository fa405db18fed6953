# What somebody does on a new director, under a systemd that runs (booted.sh): each line says what holds, or FAILS.
#   sh try.sh [ranges] [credentials]: with these parts
parts=" $* "
with() { case $parts in *" $1 "*) ;; *) return 1 ;; esac; }
cd /tmp
must() { # must WHAT COMMAND...
    what=$1; shift
    if "$@" >out 2>&1; then echo "holds: $what"; return; fi
    echo "FAILS: $what"
    cat out
    journalctl --no-pager --output=cat -n 40
    exit 1
}
soon() { # soon WHAT SHELL: within a minute
    for _ in $(seq 60); do ! sh -c "$2" >/dev/null 2>&1 || { echo "holds: $1"; return; }; sleep 1; done
    must "$1" sh -c "$2"
}
status() { # status UNIT FIELD: of /proc/PID/status
    sed -n "s/^$2:[[:space:]]*//p" "/proc/$(systemctl show --value -p MainPID "$1")/status"
}

must "keys" sh -c 'feedback keys new /etc/feedback/master && feedback keys pair && systemd-tmpfiles --create feedback.conf'
cat >/etc/feedback/master.toml <<'END'
role = "/run/feedback/role.json"
[[service]]
virtual = "tcp:10.0.0.100:80"
[[service.destination]]
address = "10.0.0.1"
[service.check]
type = "exec"
command = ["/bin/sh", "-c", "grep -q '^CapEff:[[:space:]]*0*$' /proc/self/status", "check", "{address}"]
END
cat >/etc/feedback/sync.toml <<'END'
name = "d1"
peer = "d2"
[[link]]
local = "10.0.0.1:7434"
peer = "10.0.0.2:7434"
[[address]]
address = "10.0.0.100/32"
interface = "eth0"
[[route]]
to = "203.0.113.0/24"
[timing]
start_seconds = 0.5
END
must "feedback-sync starts" systemctl start feedback-sync
must "feedback-master starts" systemctl start feedback-master
soon "sync takes its address" 'ip address show eth0 | grep -q 10.0.0.100/32'
soon "sync has its range announced" 'ip route show table 74 | grep -q "blackhole 203.0.113.0/24"'
soon "the master makes its service" 'grep -q "TCP  0A000064:0050" /proc/net/ip_vs'
must "sync wrote the kernel's sysctls" grep -qx 10 /proc/sys/net/ipv4/vs/sync_refresh_period

feedback keys token rs1 --rip 10.0.0.1 >token 2>/dev/null
must "an agent joins by token" sh -c 'feedback keys join --master tcp://10.0.0.1:7433 <token'
must "feedback-agent starts" systemctl start feedback-agent
soon "the master hears it" 'feedback show --json | grep -q "\"state\": *\"fresh\""'
soon "its own check, a program, has no capability and passes" 'feedback show --json | grep -q "\"up\": *true"'

if with ranges; then
# Marks, policy rules and routes, from within the sandbox. This kernel has the older iptables only: a drop-in.
cp /etc/feedback/master.toml before.toml
cat >>/etc/feedback/master.toml <<'END'
[[service]]
virtual = "fwmark:7"
match = ["203.0.113.0/24 tcp 80", "2001:db8:9::/64 tcp 443"]
[[service]]
virtual = "fwmark:7:ipv6"
END
must "feedback-master takes a range" systemctl reload feedback-master
soon "without the drop-in it says that nothing can mark" 'journalctl --no-pager -u feedback-master | grep -q "steer-failed.*nothing here can mark packets"'
mkdir -p /etc/systemd/system/feedback-master.service.d
cp /opt/feedback/source/examples/iptables-legacy.conf /etc/systemd/system/feedback-master.service.d/
systemctl daemon-reload
must "feedback-master starts with the drop-in" systemctl restart feedback-master
soon "the master marks IPv4" 'iptables-legacy-save -t mangle | grep -q "^-A feedback-steer -d 203.0.113.0/24 .*0x7/0xffffffff"'
soon "the master marks IPv6" 'ip6tables-legacy-save -t mangle | grep -q "^-A feedback-steer -d 2001:db8:9::/64 .*0x7/0xffffffff"'
must "with policy rules" sh -c 'ip rule | grep -q "fwmark 0x7 lookup 7433" && ip -6 rule | grep -q "fwmark 0x7 lookup 7433"'
must "and routes" sh -c 'ip route show table 7433 | grep -q "^local default" && ip -6 route show table 7433 | grep -q "^local default"'
must "steer show says that all is there" feedback steer show
must "what is undone" ip rule del fwmark 7
soon "is back" 'ip rule | grep -q "fwmark 0x7 lookup 7433"'
must "steer remove" feedback steer remove
must "leaves nothing" sh -c '! { iptables-legacy-save; ip6tables-legacy-save; ip rule; ip -6 rule; } | grep -E "feedback|fwmark"'
cp before.toml /etc/feedback/master.toml
rm /etc/systemd/system/feedback-master.service.d/iptables-legacy.conf
systemctl daemon-reload
fi

# What is made while a daemon runs is hidden from it when it starts again.
must "feedback-master and sync start again" systemctl restart feedback-master feedback-sync
soon "the master hears the agent again" 'feedback show --json | grep -q "\"state\": *\"fresh\""'
for unit in agent master sync; do
    must "feedback-$unit runs as feedback" [ "$(status feedback-$unit Uid | cut -f1)" = "$(id -u feedback)" ]
    for secret in agent.key_secret master.key_secret pair.key; do
        own=$(case $unit in sync) echo pair.key ;; *) echo $unit.key_secret ;; esac)
        seen=/proc/$(systemctl show --value -p MainPID feedback-$unit)/root/etc/feedback/$secret
        must "feedback-$unit sees its own secret and no other ($secret)" sh -c "[ $secret = $own ] && test -s $seen || ! test -s $seen"
    done
    must "feedback-$unit runs under a filter of system calls" [ "$(status feedback-$unit Seccomp)" = 2 ]
    must "feedback-$unit gains no privileges" [ "$(status feedback-$unit NoNewPrivs)" = 1 ]
    echo nonsense >>/etc/feedback/$unit.toml
    must "feedback-$unit takes a reload" systemctl reload feedback-$unit
    soon "feedback-$unit refuses a bad file" "journalctl --no-pager -u feedback-$unit | grep -q reload-failed"
done
must "the agent has no capability" [ "$(status feedback-agent CapEff)" = 0000000000000000 ]
must "the master has CAP_NET_ADMIN" [ "$(status feedback-master CapEff)" = 0000000000001000 ]
for unit in master sync; do
    seen=/proc/$(systemctl show --value -p MainPID feedback-$unit)
    must "feedback-$unit is nobody's to look into, not its own user's" sh -c "! setpriv --reuid=feedback --regid=feedback --clear-groups cat $seen/environ >/dev/null 2>&1"
done
must "sync has CAP_NET_ADMIN and CAP_NET_RAW" [ "$(status feedback-sync CapEff)" = 0000000000003000 ]
# Longer than WatchdogSec: the loops that work have fed it.
sleep 12
for unit in agent master sync; do
    must "feedback-$unit ran all the time" [ "$(systemctl show --value -p ActiveState,NRestarts feedback-$unit | tr '\n' ' ')" = "0 active " ]
done
must "they stop" systemctl stop feedback-agent feedback-master feedback-sync

if with credentials; then
# The same with their secrets as credentials, which systemd makes: the files are root's alone.
for each in agent:agent.key_secret:key master:master.key_secret:key sync:pair.key:secret; do
    IFS=: read -r unit file word <<END
$each
END
    must "feedback-$unit's secret is root's" sh -c "chown root:root /etc/feedback/$file && chmod 600 /etc/feedback/$file"
    sed -i "/^nonsense$/d; /^$word = /d; 1i $word = \"credential:$file\"" "/etc/feedback/$unit.toml"
    ! systemctl start "feedback-$unit" 2>/dev/null || { echo "FAILS: feedback-$unit starts without the credential"; exit 1; }
    systemctl stop "feedback-$unit"
    mkdir -p "/etc/systemd/system/feedback-$unit.service.d"
    sed "s/master\.key_secret/$file/g" /opt/feedback/source/examples/credentials.conf \
        >"/etc/systemd/system/feedback-$unit.service.d/credentials.conf"
    systemctl daemon-reload
    must "feedback-$unit starts with its credential" systemctl start "feedback-$unit"
    must "feedback-$unit with it runs as feedback" [ "$(status "feedback-$unit" Uid | cut -f1)" = "$(id -u feedback)" ]
    must "feedback-$unit's credential is the manager's mount" sh -c "grep -q ' /run/credentials/feedback-$unit.service .* ramfs ' /proc/\$(systemctl show --value -p MainPID feedback-$unit)/mountinfo"
    must "feedback-$unit with it runs under a filter of system calls" [ "$(status "feedback-$unit" Seccomp)" = 2 ]
done
for unit in agent master sync; do
    pid=$(systemctl show --value -p MainPID "feedback-$unit")
    must "feedback-$unit sees no other's credential, though all are of one user" [ "$(ls "/proc/$pid/root/run/credentials")" = "feedback-$unit.service" ]
done
soon "with credentials the master hears the agent" 'feedback show --json | grep -q "\"state\": *\"fresh\""'
soon "with credentials sync is the active director" 'feedback sync status | grep -q active'
must "they stop again" systemctl stop feedback-agent feedback-master feedback-sync
fi
must "the kernel's table stays" grep -q "TCP  0A000064:0050" /proc/net/ip_vs
must "the address stays" sh -c 'ip address show eth0 | grep -q 10.0.0.100/32'
must "the role and the state stay" test -s /run/feedback/role.json -a -s /var/lib/feedback/master.json
echo "that was all"
