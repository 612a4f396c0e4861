"""textune broken on purpose: hostile files, kills, full disks, bad numbers. Dated results are in results/."""
