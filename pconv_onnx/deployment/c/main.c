/* Reads inputs of the network as raw float32, one behind another, and prints the largest output of each.
 * With a second file name it writes all outputs there, as raw float32. */
#include "network.h"

#include <stdio.h>
#include <stdlib.h>

static float in[PCONV_INPUTS], out[PCONV_OUTPUTS];

int main(int count, char **arguments)
{
    if (count < 2 || count > 3) {
        fprintf(stderr, "usage: %s INPUTS.raw [OUTPUTS.raw]\n", arguments[0]);
        return 2;
    }
    FILE *inputs = fopen(arguments[1], "rb");
    FILE *outputs = count == 3 ? fopen(arguments[2], "wb") : NULL;
    void *arena = malloc(pconv_arena_bytes);
    if (!inputs || (count == 3 && !outputs) || !arena) {
        fprintf(stderr, "%s: cannot open the files, or no memory is left\n", arguments[0]);
        return 1;
    }
    int failed = 0;
    size_t read;
    while (!failed && (read = fread(in, sizeof(float), PCONV_INPUTS, inputs)) == PCONV_INPUTS) {
        failed = pconv_run(in, out, arena);
        size_t largest = 0;
        for (size_t i = 1; i < PCONV_OUTPUTS; i++)
            if (out[i] > out[largest])
                largest = i;
        printf("%lu %.9g\n", (unsigned long)largest, (double)out[largest]);
        if (outputs && fwrite(out, sizeof(float), PCONV_OUTPUTS, outputs) != PCONV_OUTPUTS)
            failed = 1;
    }
    if (!failed && read) {
        fprintf(stderr, "%s: the file ends within an input of %d floats\n", arguments[0], PCONV_INPUTS);
        failed = 1;
    }
    if (outputs && fclose(outputs))
        failed = 1;
    fclose(inputs);
    free(arena);
    return failed;
}
