enum { AXES = 6 };

/* The axes of elementwise layers, the outermost first: sizes, and how far apart elements lie in each operand. */
struct axes {
    int32_t sizes[AXES], out[AXES], left[AXES], right[AXES];
};

struct place {
    int32_t index[AXES], out, left, right;
};

/* To the next run along the innermost axis; 0 after the last one. */
static int next(const struct axes *axes, struct place *place)
{
    for (int axis = AXES - 2; axis >= 0; axis--) {
        place->out += axes->out[axis];
        place->left += axes->left[axis];
        place->right += axes->right[axis];
        if (++place->index[axis] < axes->sizes[axis])
            return 1;
        place->index[axis] = 0;
        place->out -= axes->out[axis] * axes->sizes[axis];
        place->left -= axes->left[axis] * axes->sizes[axis];
        place->right -= axes->right[axis] * axes->sizes[axis];
    }
    return 0;
}
