/* The instructions that each input takes, where QEMU counts them (-icount shift=0): one takes a nanosecond then, and
 * the timer of the machine has a tick every 40 of these. It has 24 bits, for 671 million instructions. */
#include "network.h"

#include <stdint.h>
#include <stdio.h>

#define CONTROL (*(volatile uint32_t *)0xE000E010)
#define LAST (*(volatile uint32_t *)0xE000E014)
#define NOW (*(volatile uint32_t *)0xE000E018)

static float in[PCONV_INPUTS], out[PCONV_OUTPUTS], arena[(PCONV_ARENA_BYTES + 3) / 4];

int main(int count, char **arguments)
{
    FILE *inputs = fopen(arguments[1], "rb"), *outputs = fopen(arguments[2], "wb");
    int failed = count != 3 || !inputs || !outputs;
    LAST = 0xFFFFFF;
    CONTROL = 5;
    while (!failed && fread(in, sizeof(float), PCONV_INPUTS, inputs) == PCONV_INPUTS) {
        NOW = 0;
        const uint32_t before = NOW;
        failed = pconv_run(in, out, arena);
        const uint32_t ticks = (before - NOW) & 0xFFFFFF;
        printf("%lu\n", (unsigned long)ticks * 40);
        failed |= fwrite(out, sizeof(float), PCONV_OUTPUTS, outputs) != PCONV_OUTPUTS;
    }
    return failed || fclose(outputs);
}
