"""A fair comparison of guidance methods: at equal confidence, with error bars."""
