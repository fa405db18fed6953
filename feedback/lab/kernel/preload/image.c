/*
 * Finds the kernel's own functions: its file is this process's executable, and has a table of exported symbols.
 */
#include "preload.h"

#include <elf.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct export { /* include/linux/export.h, without PREL32 relocations */
	uint64_t value, name, namespace;
};

static const Elf64_Shdr *section(const char *image, const char *name)
{
	const Elf64_Ehdr *head = (const void *)image;
	const Elf64_Shdr *sections = (const void *)(image + head->e_shoff);
	const char *names = image + sections[head->e_shstrndx].sh_offset;
	for (int i = 0; i < head->e_shnum; i++)
		if (!strcmp(names + sections[i].sh_name, name))
			return sections + i;
	return NULL;
}

static unsigned char *find(const char *image, const char *wanted)
{
	const Elf64_Shdr *table = section(image, "__ksymtab_gpl"), *strings = section(image, "__ksymtab_strings");
	if (!table || !strings)
		return NULL;
	const struct export *symbol = (const void *)(image + table->sh_offset);
	for (size_t i = 0; i < table->sh_size / sizeof *symbol; i++) {
		uint64_t offset = symbol[i].name - strings->sh_addr;
		if (offset < strings->sh_size && !strcmp(image + strings->sh_offset + offset, wanted))
			return (unsigned char *)symbol[i].value;
	}
	return NULL;
}

unsigned char *kernel_symbol(const char *name)
{
	unsigned char *found = NULL;
	struct stat status;
	int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return NULL;
	if (!fstat(file, &status) && (size_t)status.st_size > sizeof(Elf64_Ehdr)) {
		const char *image = mmap(NULL, status.st_size, PROT_READ, MAP_PRIVATE, file, 0);
		if (image != MAP_FAILED) {
			const Elf64_Ehdr *head = (const void *)image;
			if (!memcmp(head->e_ident, ELFMAG, SELFMAG) && head->e_type == ET_EXEC && head->e_shoff)
				found = find(image, name);
			munmap((void *)image, status.st_size);
		}
	}
	close(file);
	return found;
}
