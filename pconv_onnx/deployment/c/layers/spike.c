/* Neurons alone: counts of sums [outer, channels, inner]. Rows of thresholds are `row` apart. */
static void $name(const $in *in, uint8_t *out, const $in *thresholds, int32_t levels, int32_t row, int32_t outer,
                  int32_t channels, int32_t inner)
{
    int32_t index = 0;
    for (int32_t i = 0; i < outer; i++)
        for (int32_t channel = 0; channel < channels; channel++)
            for (int32_t j = 0; j < inner; j++, index++)
                out[index] = $count(thresholds + channel * row, levels, in[index]);
}
