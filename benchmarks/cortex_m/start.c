/* What a program needs to run on the Cortex-M4 of QEMU's mps2-an386: vectors, and files and arguments of the host. */
#include <stdint.h>
#include <stdlib.h>

extern uint32_t stack_top[];
extern void initialise_monitor_handles(void);
extern int main(int count, char **arguments);

void reset(void)
{
    static char *arguments[] = {"run_network", "inputs.raw", "outputs.raw", NULL};
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* floating-point instructions */
    initialise_monitor_handles();
    exit(main(3, arguments));
}

static void fault(void)
{
    abort();
}

/* The stack, where to begin, and what to do when something is wrong. */
__attribute__((section(".vectors"), used)) static void *const vectors[] = {
    stack_top, (void *)reset, (void *)fault, (void *)fault, (void *)fault, (void *)fault, (void *)fault,
};
