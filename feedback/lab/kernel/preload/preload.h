/* What the parts of the preloaded library share. */
#include <stdint.h>

/* The address of an exported symbol of the kernel whose process this is, or NULL: this is no User Mode Linux, or it has
 * none of that name. */
unsigned char *kernel_symbol(const char *name);
