"""Pages as real exporters write them: node_exporter 1.5.0 of Debian 12, and windows_exporter by its documentation."""

from __future__ import annotations

NODE = b"""# HELP node_cpu_seconds_total Seconds the CPUs spent in each mode.
# TYPE node_cpu_seconds_total counter
node_cpu_seconds_total{cpu="0",mode="idle"} 7143.75
node_cpu_seconds_total{cpu="0",mode="iowait"} 38.42
node_cpu_seconds_total{cpu="0",mode="irq"} 0
node_cpu_seconds_total{cpu="0",mode="nice"} 9512.82
node_cpu_seconds_total{cpu="0",mode="softirq"} 17.14
node_cpu_seconds_total{cpu="0",mode="steal"} 21.16
node_cpu_seconds_total{cpu="0",mode="system"} 5886.12
node_cpu_seconds_total{cpu="0",mode="user"} 24166.92
node_cpu_seconds_total{cpu="1",mode="idle"} 6838.14
node_cpu_seconds_total{cpu="1",mode="iowait"} 72.2
node_cpu_seconds_total{cpu="1",mode="irq"} 0
node_cpu_seconds_total{cpu="1",mode="nice"} 9620.68
node_cpu_seconds_total{cpu="1",mode="softirq"} 64.64
node_cpu_seconds_total{cpu="1",mode="steal"} 20.75
node_cpu_seconds_total{cpu="1",mode="system"} 4861.31
node_cpu_seconds_total{cpu="1",mode="user"} 25314.43
node_cpu_guest_seconds_total{cpu="0",mode="user"} 0.02
# TYPE node_memory_MemAvailable_bytes gauge
node_memory_MemAvailable_bytes 2.4516313088e+10
node_memory_MemTotal_bytes 2.5276502016e+10
node_netstat_TcpExt_ListenOverflows 138553
node_netstat_Tcp_CurrEstab 2
node_netstat_Tcp_OutRsts 561854
node_netstat_Tcp_PassiveOpens 590288
node_pressure_cpu_waiting_seconds_total 29780.687018
node_pressure_io_stalled_seconds_total 69.874738
node_pressure_io_waiting_seconds_total 230.812319
node_pressure_memory_stalled_seconds_total 0
node_pressure_memory_waiting_seconds_total 0
node_procs_running 3
node_boot_time_seconds 1.795994968e+09
node_time_seconds 1.7960418137418895e+09
node_vmstat_oom_kill 0
node_vmstat_pswpin 12
"""

WINDOWS = b"""# TYPE windows_cpu_time_total counter
windows_cpu_time_total{core="0,0",mode="dpc"} 8.5
windows_cpu_time_total{core="0,0",mode="idle"} 5000
windows_cpu_time_total{core="0,0",mode="interrupt"} 3.25
windows_cpu_time_total{core="0,0",mode="privileged"} 100.5
windows_cpu_time_total{core="0,0",mode="user"} 400
windows_cpu_time_total{core="0,1",mode="dpc"} 0.5
windows_cpu_time_total{core="0,1",mode="idle"} 5200
windows_cpu_time_total{core="0,1",mode="interrupt"} 0.25
windows_cpu_time_total{core="0,1",mode="privileged"} 50
windows_cpu_time_total{core="0,1",mode="user"} 250
windows_memory_available_bytes 6.0e+09
windows_cs_physical_memory_bytes 1.6e+10
windows_system_system_up_time 1.7e+09
windows_system_processor_queue_length 4
windows_tcp_connections_established{af="ipv4"} 30
windows_tcp_connections_established{af="ipv6"} 5
windows_tcp_connections_passive_total{af="ipv4"} 9000
windows_tcp_connections_passive_total{af="ipv6"} 1000
"""
