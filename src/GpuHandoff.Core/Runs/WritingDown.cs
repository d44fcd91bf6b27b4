namespace GpuHandoff.Runs;

/// <summary>The machine is what counts, and it is where the outcome says; a record that is left over, or missing, is looked at again next time.</summary>
static class WritingDown
{
    /// <summary>Writes into the ledger, and warns where that cannot be written.</summary>
    public static void WriteDown(this IWitness witness, Action write)
    {
        try
        {
            write();
        }
        catch (LedgerRefused refused)
        {
            witness.Warns($"{refused.Message}; {refused.Hint}");
        }
    }
}
