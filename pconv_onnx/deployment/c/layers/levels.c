/* What counts [outer, channels, inner] stand for. Rows of levels are `row` apart. */
static void $name(const uint8_t *in, $out *out, const $out *levels, int32_t row, int32_t outer, int32_t channels,
                  int32_t inner)
{
    int32_t index = 0;
    for (int32_t i = 0; i < outer; i++)
        for (int32_t channel = 0; channel < channels; channel++)
            for (int32_t j = 0; j < inner; j++, index++)
                out[index] = levels[channel * row + in[index]];
}
