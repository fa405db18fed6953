/*
 * Extended registers. The kernel keeps 2696 bytes of a process's XSAVE state: enough for AVX-512 and protection keys. A
 * processor with AMX has 11008, its host kernel refuses to set fewer, and the guest panics at its first process
 * ("userspace - ptrace set fp regs failed, errno = 14"). ptrace() here completes the buffer with zeros. That is exact: a
 * component whose bit in XSTATE_BV is clear is in its initial state, and a guest process cannot ask for AMX.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char state[1 << 16];
static size_t whole; /* bytes that the host's kernel wants; 0 until asked */

static long set_xstate(pid_t pid, struct iovec *part)
{
	if (!whole) {
		struct iovec all = { state, sizeof state };
		if (syscall(SYS_ptrace, PTRACE_GETREGSET, pid, NT_X86_XSTATE, &all) < 0)
			return -1;
		whole = all.iov_len;
	}
	if (part->iov_len >= whole)
		return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, NT_X86_XSTATE, part);
	memcpy(state, part->iov_base, part->iov_len);
	memset(state + part->iov_len, 0, whole - part->iov_len);
	struct iovec all = { state, whole };
	return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, NT_X86_XSTATE, &all);
}

long ptrace(enum __ptrace_request request, ...)
{
	va_list arguments;
	va_start(arguments, request);
	pid_t pid = va_arg(arguments, pid_t);
	void *address = va_arg(arguments, void *);
	void *data = va_arg(arguments, void *);
	va_end(arguments);

	if (request == PTRACE_SETREGSET && (long)address == NT_X86_XSTATE)
		return set_xstate(pid, data);
	if (request != PTRACE_PEEKTEXT && request != PTRACE_PEEKDATA && request != PTRACE_PEEKUSER)
		return syscall(SYS_ptrace, request, pid, address, data);

	/* The C library's calling convention: the word is the result, and errno tells it from a failure. */
	long word;
	if (syscall(SYS_ptrace, request, pid, address, &word) < 0)
		return -1;
	errno = 0;
	return word;
}
