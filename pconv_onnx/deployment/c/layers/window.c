/* A window that moves over images [samples, height, width, channels]. */
struct window {
    int32_t samples, height, width, channels;
    int32_t rows, columns, outputs; /* of the images that come out */
    int32_t groups, taps[2], strides[2], dilations[2], padding[2];
};

/* The first tap of a window from `start` on that lies in the image. */
static int32_t first_tap(int32_t start, int32_t dilation)
{
    return start < 0 ? (-start + dilation - 1) / dilation : 0;
}

/* The tap behind the last one that lies in an image of that size. */
static int32_t end_of_taps(int32_t start, int32_t dilation, int32_t taps, int32_t size)
{
    const int32_t inside = start < size ? (size - 1 - start) / dilation + 1 : 0;
    return inside < taps ? inside : taps;
}
