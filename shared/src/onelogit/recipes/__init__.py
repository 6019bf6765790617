"""What each model family needs: prompt, read-out, scale, limits, licence and source. Facts only."""
