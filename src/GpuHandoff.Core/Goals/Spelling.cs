namespace GpuHandoff.Goals;

/// <summary>What somebody meant who wrote something else.</summary>
static class Spelling
{
    /// <summary>The nearest of the words; null where none is near.</summary>
    public static string? Nearest(string text, IEnumerable<string> words) =>
        // Nobody misses a word of ours by so much, and the measure takes the square of its length.
        text.Length is 0 or > 64 ? null
        : words.Select(word => (Word: word, Far: Distance(text, word))).Where(w => w.Far <= Math.Max(1, Math.Min(text.Length, w.Word.Length) / 3))
            .OrderBy(w => w.Far).Select(w => w.Word).FirstOrDefault();

    /// <summary>How many letters have to be put in, taken out, changed, or swapped with their neighbour.</summary>
    public static int Distance(string a, string b)
    {
        var far = new int[a.Length + 1, b.Length + 1];
        for (var i = 0; i <= a.Length; i++)
        {
            for (var j = 0; j <= b.Length; j++)
            {
                far[i, j] = i == 0 || j == 0
                    ? i + j
                    : Math.Min(Math.Min(far[i - 1, j], far[i, j - 1]) + 1, far[i - 1, j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1));
                if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                    far[i, j] = Math.Min(far[i, j], far[i - 2, j - 2] + 1);
            }
        }
        return far[a.Length, b.Length];
    }
}
