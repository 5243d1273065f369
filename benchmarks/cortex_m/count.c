/* The instructions that each input takes, and the bytes of stack.
 *
 * QEMU counts instructions (-icount shift=0): one takes a nanosecond then, and the timer of the machine has a tick every
 * 40 of these. It has 24 bits, for 671 million instructions. The stack is filled with a pattern first: what no longer
 * has it has been used. */
#include "network.h"

#include <stdint.h>
#include <stdio.h>

#define CONTROL (*(volatile uint32_t *)0xE000E010)
#define LAST (*(volatile uint32_t *)0xE000E014)
#define NOW (*(volatile uint32_t *)0xE000E018)

#define UNUSED 0xA5A5A5A5u
#define WORDS 1024

static float in[PCONV_INPUTS], out[PCONV_OUTPUTS], arena[(PCONV_ARENA_BYTES + 3) / 4];

int main(int count, char **arguments)
{
    FILE *inputs = fopen(arguments[1], "rb"), *outputs = fopen(arguments[2], "wb");
    int failed = count != 3 || !inputs || !outputs;
    /* Some words are left for the calls of this function. */
    volatile uint32_t *const below = (volatile uint32_t *)__builtin_frame_address(0) - 64 - WORDS;
    LAST = 0xFFFFFF;
    CONTROL = 5;
    while (!failed && fread(in, sizeof(float), PCONV_INPUTS, inputs) == PCONV_INPUTS) {
        for (int i = 0; i < WORDS; i++)
            below[i] = UNUSED;
        NOW = 0;
        const uint32_t before = NOW;
        failed = pconv_run(in, out, arena);
        const uint32_t ticks = (before - NOW) & 0xFFFFFF;
        int untouched = 0;
        while (untouched < WORDS && below[untouched] == UNUSED)
            untouched++;
        printf("%lu %d\n", (unsigned long)ticks * 40, (WORDS - untouched + 64) * 4);
        failed |= fwrite(out, sizeof(float), PCONV_OUTPUTS, outputs) != PCONV_OUTPUTS;
    }
    return failed || fclose(outputs);
}
