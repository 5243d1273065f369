static int32_t ${name}_dot(const $in *values, const $weight *weights, int32_t length, int32_t zero)
{
    int32_t sum = 0;
    for (int32_t i = 0; i < length; i++)
        sum += (int32_t)values[i] * weights[i];
    if (zero)
        for (int32_t i = 0; i < length; i++)
            sum -= zero * weights[i];
    return sum;
}

/* A convolution: weights [outputs, taps, taps, channels / groups]. Values are less `zero`, which padding adds. */
static void $name(const struct window *window, const struct sum *sum, const $in *in, const $weight *weights,
                  int32_t zero, const uint8_t *added_counts, const int32_t *added_sums, uint8_t *counts, int32_t *sums)
{
    const struct window w = *window;
    const struct ends ends = {added_counts, added_sums, counts, sums};
    const int32_t inputs = w.channels / w.groups, of_group = w.outputs / w.groups;
    int32_t index = 0;
    for (int32_t sample = 0; sample < w.samples; sample++)
        for (int32_t row = 0; row < w.rows; row++) {
            const int32_t top = row * w.strides[0] - w.padding[0];
            const int32_t first_y = first_tap(top, w.dilations[0]);
            const int32_t end_y = end_of_taps(top, w.dilations[0], w.taps[0], w.height);
            for (int32_t column = 0; column < w.columns; column++) {
                const int32_t left = column * w.strides[1] - w.padding[1];
                const int32_t first_x = first_tap(left, w.dilations[1]);
                const int32_t end_x = end_of_taps(left, w.dilations[1], w.taps[1], w.width);
                /* Taps side by side in the image are so in the weights. */
                const int32_t run = w.groups == 1 && w.dilations[1] == 1 && end_x > first_x ? end_x - first_x : 1;
                for (int32_t output = 0; output < w.outputs; output++, index++) {
                    const $in *image = in + (ptrdiff_t)sample * w.height * w.width * w.channels
                                       + output / of_group * inputs;
                    const $weight *filter = weights + (ptrdiff_t)output * w.taps[0] * w.taps[1] * inputs;
                    int32_t products = 0;
                    for (int32_t y = first_y; y < end_y; y++)
                        for (int32_t x = first_x; x < end_x; x += run) {
                            const int32_t at = (top + y * w.dilations[0]) * w.width + left + x * w.dilations[1];
                            products += ${name}_dot(image + (ptrdiff_t)at * w.channels,
                                                    filter + (y * w.taps[1] + x) * inputs, run * inputs, zero);
                        }
                    finish(sum, &ends, products, output, index);
                }
            }
        }
}
