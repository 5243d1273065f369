/* The largest of each channel in each window; where that lies in the padding alone, the lowest value. */
static void $name(const struct window *window, const $in *in, $in *out)
{
    const struct window w = *window;
    for (int32_t sample = 0; sample < w.samples; sample++, in += (ptrdiff_t)w.height * w.width * w.channels)
        for (int32_t row = 0; row < w.rows; row++)
            for (int32_t column = 0; column < w.columns; column++, out += w.channels) {
                const int32_t top = row * w.strides[0] - w.padding[0], left = column * w.strides[1] - w.padding[1];
                const int32_t first_y = first_tap(top, w.dilations[0]), first_x = first_tap(left, w.dilations[1]);
                const int32_t end_y = end_of_taps(top, w.dilations[0], w.taps[0], w.height);
                const int32_t end_x = end_of_taps(left, w.dilations[1], w.taps[1], w.width);
                for (int32_t channel = 0; channel < w.channels; channel++) {
                    $in largest = $lowest;
                    for (int32_t y = first_y; y < end_y; y++)
                        for (int32_t x = first_x; x < end_x; x++) {
                            const int32_t at = (top + y * w.dilations[0]) * w.width + left + x * w.dilations[1];
                            const $in value = in[(ptrdiff_t)at * w.channels + channel];
                            if (value > largest)
                                largest = value;
                        }
                    out[channel] = largest;
                }
            }
}
