using System.Text.Json;
using System.Text.Json.Serialization;
using GpuHandoff.Machines;

namespace GpuHandoff.Formats;

/// <summary>An address in JSON is the text that sysfs has for it.</summary>
public sealed class AddressConverter : JsonConverter<PciAddress>
{
    public override PciAddress Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) =>
        PciAddress.TryParse(reader.GetString() ?? "", out var address)
            ? address
            : throw new JsonException($"\"{reader.GetString()}\" is no PCI address");

    public override void Write(Utf8JsonWriter writer, PciAddress value, JsonSerializerOptions options) =>
        writer.WriteStringValue(value.ToString());
}
