/*
 * The guest's own time: it stands still while the host makes the guest wait, and skips what the guest would sleep.
 *
 * User Mode Linux is one thread of the kernel and one process for each address space of the guest, of which exactly one
 * runs at any moment. So the guest's time is
 *
 *     what it has slept  +  the CPU time that its kernel and its processes have used, times the pace of its processor
 *
 * Both of the kernel's ways to see time are replaced: the C library's clock and timer (by preloading), and the
 * scheduler's clock, which counts ticks of 10 ms there (in memory, and only if its code is exactly the one known).
 *
 * - Busy: a timer of the host's real time cannot say when the guest's time has come, for the host may have let others
 *   run. So an alarm that is early is set again for what is left, and the kernel does not hear of it.
 * - Lost: the kernel drops an alarm that comes while it still handles the last one and has its interrupts off
 *   (unblock_signals()). It would then wait for ever, or until something sets its timer anew. It answers each alarm by
 *   setting the timer, so an alarm without an answer is sent again.
 * - Idle: nothing reaches the guest from outside (its network is its own, its console is only written to, the host's
 *   files are read at once), so the only thing that can end its sleep is its timer. The sleep is skipped: time is put
 *   forward to that moment.
 *
 * FEEDBACK_LAB_PACE, parts in 1024: how much of the guest's time a second of CPU time is. The guest of a slow host has
 * less, so that its processor seems as fast as any other's.
 * FEEDBACK_LAB_STOLEN, parts in 1024 of the guest's busy time: taken from it by an imaginary host in slices, its clock
 * running on, which is what a starved virtual machine sees.
 * FEEDBACK_LAB_LOST, a number: of so many alarms one is lost, on purpose.
 * FEEDBACK_LAB_PROBE: says "own time" and ends if this kernel is one that can be given it.
 *
 * Source: arch/um/os-Linux/time.c, signal.c and skas/process.c of Linux 6.1; kernel/time/posix-cpu-timers.c for the
 * number of another process's clock.
 */
#define _GNU_SOURCE
#include "preload.h"

#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
#define WHOLE 1024LL
#define STOLEN_SLICE 4000000LL /* ns of guest time between two thefts: a slice of the host's scheduler */
#define UNANSWERED 1000000LL   /* ns of guest time until an alarm that set no timer is sent again */
#define PIDS (1 << 22)         /* PID_MAX_LIMIT */

static int active;
static int64_t pace = WHOLE, stolen, lost, alarms;

/* What the CPU clock of each process showed when it last stopped. Pages of it exist only where a process was. */
static int64_t shown[PIDS];

/* The CPU time of all processes that have stopped, and the one that runs. An alarm can read it at any instruction, so
 * it is replaced whole: the other one is filled in, and the pointer decides. */
struct account {
	int64_t stopped;
	pid_t running;
};
static struct account accounts[2], *volatile account = accounts;

static volatile int64_t slept = SECOND; /* time begins at one second: 0 is what a clock that was never read shows */
static volatile int64_t latest;
static volatile int64_t due; /* the guest's timer: a moment of its time, 0 if not set */
static volatile int64_t interval;
static timer_t alarm_timer;

static int64_t read_clock(clockid_t clock)
{
	struct timespec t;
	if (syscall(SYS_clock_gettime, clock, &t))
		return 0;
	return t.tv_sec * SECOND + t.tv_nsec;
}

static int64_t cpu_time_of(pid_t pid)
{
	return read_clock((~(clockid_t)pid << 3) | 2); /* MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED) */
}

static int64_t guest_time(void)
{
	const struct account *now = account;
	int64_t used = read_clock(CLOCK_THREAD_CPUTIME_ID) + now->stopped;
	if (now->running)
		used += cpu_time_of(now->running) - shown[now->running];
	int64_t busy = used * pace / WHOLE;
	if (stolen) {
		int64_t slice = STOLEN_SLICE * (WHOLE - stolen) / WHOLE;
		busy += busy / slice * (STOLEN_SLICE - slice);
	}
	if (slept + busy > latest)
		latest = slept + busy;
	return latest;
}

static uint64_t sched_clock(void)
{
	return (uint64_t)guest_time();
}

/* The C library's functions, as the kernel calls them. In any other program they are what they were. */

int clock_gettime(clockid_t clock, struct timespec *t)
{
	if (!active || clock != CLOCK_MONOTONIC)
		return syscall(SYS_clock_gettime, clock, t);
	int64_t now = guest_time();
	t->tv_sec = now / SECOND, t->tv_nsec = now % SECOND;
	return 0;
}

/* A process of the guest runs until it stops for the kernel: in waitpid(), by the host's word of its CPU time. */
pid_t waitpid(pid_t pid, int *status, int options)
{
	if (!active || pid <= 0 || pid >= PIDS)
		return syscall(SYS_wait4, pid, status, options, NULL);

	struct account *next = account == accounts ? accounts + 1 : accounts;
	*next = (struct account){ account->stopped, pid };
	account = next;
	pid_t found = syscall(SYS_wait4, pid, status, options, NULL);

	int64_t shows = cpu_time_of(pid);
	if (shows < shown[pid])
		shown[pid] = 0; /* the number is another process's by now */
	next = account == accounts ? accounts + 1 : accounts;
	*next = (struct account){ account->stopped + shows - shown[pid], 0 };
	account = next;
	shown[pid] = shows;
	return found;
}

static void set_alarm(void)
{
	struct itimerspec real = { 0 };
	if (due) {
		int64_t left = (due - guest_time()) * WHOLE / pace;
		if (left < 1)
			left = 1; /* 0 would mean never */
		real.it_value.tv_sec = left / SECOND, real.it_value.tv_nsec = left % SECOND;
	}
	syscall(SYS_timer_settime, alarm_timer, 0, &real, NULL);
}

int timer_create(clockid_t clock, struct sigevent *event, timer_t *timer)
{
	int number = 0;
	if (syscall(SYS_timer_create, clock, event, &number))
		return -1;
	*timer = (timer_t)(intptr_t)number;
	alarm_timer = *timer;
	return 0;
}

int timer_settime(timer_t timer, int flags, const struct itimerspec *new, struct itimerspec *old)
{
	if (!active)
		return syscall(SYS_timer_settime, timer, flags, new, old);
	int64_t value = new->it_value.tv_sec * SECOND + new->it_value.tv_nsec;
	due = 0; /* an alarm between these lines is nobody's */
	interval = new->it_interval.tv_sec * SECOND + new->it_interval.tv_nsec;
	if (value)
		due = guest_time() + value;
	set_alarm();
	return 0;
}

int timer_gettime(timer_t timer, struct itimerspec *found)
{
	if (!active)
		return syscall(SYS_timer_gettime, timer, found);
	int64_t left = 0;
	if (due && (left = due - guest_time()) < 1)
		left = 1;
	found->it_value.tv_sec = left / SECOND, found->it_value.tv_nsec = left % SECOND;
	found->it_interval.tv_sec = interval / SECOND, found->it_interval.tv_nsec = interval % SECOND;
	return 0;
}

static void (*hear)(int, siginfo_t *, void *);

static void on_alarm(int number, siginfo_t *info, void *context)
{
	if (!due)
		return;
	if (guest_time() < due) {
		set_alarm();
		return;
	}
	due = interval ? due + interval : guest_time() + UNANSWERED;
	set_alarm();
	if (lost && ++alarms % lost == 0)
		return;
	hear(number, info, context);
}

int sigaction(int number, const struct sigaction *new, struct sigaction *old)
{
	static int (*real)(int, const struct sigaction *, struct sigaction *);
	if (!real)
		real = dlsym(RTLD_NEXT, "sigaction");
	if (!active || number != SIGALRM || !new || !(new->sa_flags & SA_SIGINFO))
		return real(number, new, old);
	struct sigaction ours = *new;
	hear = new->sa_sigaction;
	ours.sa_sigaction = on_alarm;
	return real(number, &ours, old);
}

/* The kernel is idle, and SIGALRM blocked: to its next timer, at once. */
int sigsuspend(const sigset_t *mask)
{
	if (active && due) {
		int64_t left = due - guest_time();
		if (left > 0)
			slept += left;
		syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGALRM);
	}
	return syscall(SYS_rt_sigsuspend, mask, _NSIG / 8);
}

/* The scheduler's clock. */

/* movabs jiffies,%rax; movabs $-INITIAL_JIFFIES*10^7,%rdx; imul $10000000,%rax,%rax; add %rdx,%rax; ret */
static int counts_ticks(const unsigned char *code)
{
	static const unsigned char times[] = { 0x48, 0x69, 0xc0, 0x80, 0x96, 0x98, 0x00, 0x48, 0x01, 0xd0, 0xc3 };
	return code[0] == 0x48 && code[1] == 0xa1 && code[10] == 0x48 && code[11] == 0xba &&
	       !memcmp(code + 20, times, sizeof times);
}

static void replace(unsigned char *code, uint64_t (*with)(void))
{
	long page = sysconf(_SC_PAGESIZE);
	char *from = (char *)((uintptr_t)code & -page);
	if (mprotect(from, 2 * page, PROT_READ | PROT_WRITE | PROT_EXEC))
		return;
	code[0] = 0x48, code[1] = 0xb8; /* movabs $with,%rax; jmp *%rax */
	memcpy(code + 2, &with, 8);
	code[10] = 0xff, code[11] = 0xe0;
	mprotect(from, 2 * page, PROT_READ | PROT_EXEC);
}

static int64_t setting(const char *name, int64_t least, int64_t most, int64_t otherwise)
{
	const char *text = getenv(name);
	long long value = text ? strtoll(text, NULL, 10) : otherwise;
	return value < least ? least : value > most ? most : value;
}

__attribute__((constructor)) static void take_over_time(void)
{
	unsigned char *code = kernel_symbol("sched_clock");
	if (!code || !counts_ticks(code))
		return;
	if (getenv("FEEDBACK_LAB_PROBE")) {
		static const char answer[] = "own time\n";
		_exit(write(STDOUT_FILENO, answer, sizeof answer - 1) < 0);
	}
	pace = setting("FEEDBACK_LAB_PACE", WHOLE / 64, WHOLE * 64, WHOLE);
	stolen = setting("FEEDBACK_LAB_STOLEN", 0, WHOLE * 15 / 16, 0);
	lost = setting("FEEDBACK_LAB_LOST", 0, WHOLE, 0);
	active = 1;
	replace(code, sched_clock);
}
